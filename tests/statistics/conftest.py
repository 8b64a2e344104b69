from hypothesis import settings

# how long an example takes says nothing about whether it holds
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
