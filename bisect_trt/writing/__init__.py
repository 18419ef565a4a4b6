"""This room holds what all others write with: words (`text`), plots as SVG (`plot`, `axis`),
`templates`, and how a file is written (`files`).

What may come in: words and kinds of marks that several rooms need. What a page says stays with the page.
"""
