"""The families of Qwen2 to Qwen3 without padding: sequences stand one behind another in a pack.

The weights are those that colpali-engine and transformers loaded; the passes over them are ours.
"""
