"""Writes the pages that are made from data and schemas: python -m docs.generate"""
