"""Which classifier, which layers, how fast?"""
