"""Which mixing helps on this data: short paired trainings within a budget of time, and what they can tell.

``mixops try`` is the command. ``tasks`` says what is asked of data that can be trained on, ``array_task`` and
``sentence_task`` are such data, ``rounds`` trains, ``judging`` says what came of it.
"""
