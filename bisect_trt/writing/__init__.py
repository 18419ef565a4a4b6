"""This room holds what all others write with: words (`text`), plots as SVG (`plot`, `axis`) and `templates`.

What may come in: words and kinds of marks that several rooms need. What a page says stays with the page.
"""
