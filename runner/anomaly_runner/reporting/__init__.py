"""What people read of a run: tables, pictures, figures and the page. Computes no metric."""
