"""Detection: what is wrong with one row, and the controls that certify who says so."""
