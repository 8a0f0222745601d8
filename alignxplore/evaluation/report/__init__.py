"""Tables, plots and the HTML page of an evaluation."""
