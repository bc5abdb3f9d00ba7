"""What travels: requests, formats, quantized vectors, tokens. No torch here."""
