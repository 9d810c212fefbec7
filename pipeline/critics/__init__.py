"""Critics: the base model's own opinion of a row, and the controls that certify it."""
