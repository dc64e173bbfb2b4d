"""Teacher: who labels photographs that nobody labelled?"""
