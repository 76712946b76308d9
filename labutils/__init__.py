"""Helper package of the ten lab notebooks on music genre and affect recognition.

Importing `labutils` is light: librosa, torch and the rest load with the module that needs them.
"""

__version__ = "1.0.0"
REPOSITORY = ""  # address on the web, as https://github.com/OWNER/NAME: badges and links of published copies lead there
