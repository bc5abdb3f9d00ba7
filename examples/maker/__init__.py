"""The parts of the example maker: words and figures, drawings, and the pages of the report."""
