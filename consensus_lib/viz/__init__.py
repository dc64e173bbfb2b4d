"""Viz: how is it shown?"""
