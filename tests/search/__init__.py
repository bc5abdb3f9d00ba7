"""Tests of search; a package, so that its conftest.py stands beside that of all tests."""
