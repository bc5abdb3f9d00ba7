"""Which files are documents, by the ends of their names, in lower case.

They stand by themselves because a search, too, asks for them, which opens no documents.
"""

PDF = frozenset({".pdf"})
TEXTS = frozenset({".txt", ".text", ".md", ".markdown", ".log", ".rst"})
PICTURES = frozenset({
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib",
    ".tif", ".tiff", ".heic", ".heif", ".hif", ".avif", ".jp2", ".j2k", ".jpf", ".jpx", ".jpc",
    ".svg",
})  # fmt: skip
OFFICE = frozenset({
    ".doc", ".docx", ".docm", ".dot", ".dotx", ".odt", ".ott", ".fodt", ".rtf",
    ".ppt", ".pptx", ".pptm", ".pps", ".ppsx", ".odp", ".otp", ".fodp", ".odg", ".fodg",
    ".xls", ".xlsx", ".xlsm", ".xlsb", ".ods", ".ots", ".fods", ".csv", ".tsv",
    ".epub", ".html", ".htm", ".xhtml",
})  # fmt: skip
SUFFIXES = PDF | PICTURES | TEXTS | OFFICE
