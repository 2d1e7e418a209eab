"""Model families: what each is made of, and the candidates that it starts with."""
