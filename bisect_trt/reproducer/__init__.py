"""This room writes and reads the folder that is handed over.

Models, values, script, issue, pages, zip, and the run of such a folder again. Folders of strangers are
read as data. What searches does not come in.
"""
