"""What a developer runs on the code itself: gates, checks and generated pages."""
