"""What features show, in words: named by an explainer, checked by a judge that sees images only."""
