"""The pages of the documentation site: those of the repository, and those that come from the code.

``python -m docs.site build`` writes everything that mkdocs needs into the folder ``build``.
"""
