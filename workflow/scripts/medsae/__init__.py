"""MedSAE: sparse autoencoders for medical language and image models.

Rooms, upstream first; no room imports one downstream of it:

``io``, ``store``, ``statistics``  base rooms: files, arrays, numbers
``config``       the schema of the configuration and the layout of the results
``notes``        clinical notes in, a validated table out
``ner``          entity spans in the notes
``activations``  tokens and hidden states of a language model
``sae``          sparse autoencoders over any activation store
``polysemy``     how the senses of a term are represented
``report``       figures and words
"""
