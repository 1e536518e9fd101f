"""The command ``rexport``. One module for each noun; what they do is in the modules below."""
