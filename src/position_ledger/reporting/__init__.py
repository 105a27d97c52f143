"""What a desk asks of all positions together: exposure, and realized profit and loss by day. Reads, never writes."""
