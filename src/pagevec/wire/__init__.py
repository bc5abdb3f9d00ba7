"""What travels: requests, formats, quantized vectors. No torch here."""
