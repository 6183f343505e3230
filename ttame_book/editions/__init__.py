"""What runs on what, and where does it go?"""
