"""Which pictures?"""
