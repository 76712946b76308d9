"""Helper package of the ten lab notebooks on music genre and affect recognition.

Three rooms: the modules here are the lesson, what the notebooks import and show; `corpus/` makes data sets in the lab's
layout, the default data among them; `tools/` is all around the notebooks: running, publishing, hand-outs, the command.
Importing `labutils` is light: librosa, torch and the rest load with the module that needs them.
"""

__version__ = "1.0.0"
REPOSITORY = ""  # address on the web, as https://github.com/OWNER/NAME: badges and links of published copies lead there
