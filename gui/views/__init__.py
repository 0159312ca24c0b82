"""One view a module; views know the document and the models, not each other."""
