"""The Qwen2 and Qwen2.5 families without padding: sequences stand one behind another in a pack.

The weights are those that colpali-engine and transformers loaded; the passes over them are ours.
"""
