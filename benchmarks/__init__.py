"""Side by side with what people use without us."""
