"""The packed backend: the families of Qwen2 to Qwen3 without padding.

The sequences of a batch stand one behind another in a pack. The weights are those that
colpali-engine and transformers loaded; the forward pass over them is pagevec's own.
"""
