"""What the field's validators say about a release."""
