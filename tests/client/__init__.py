"""Tests of the client; a package, so that its conftest.py stands beside that of all tests."""
