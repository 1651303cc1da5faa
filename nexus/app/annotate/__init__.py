"""`nexus annotate`: a page on which a person marks objects in images, and a model does the drawing."""
