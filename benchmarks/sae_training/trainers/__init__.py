"""One module per trainer, each giving ``make(architecture, train, load)``."""
