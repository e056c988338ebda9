"""A demonstration on a real model: three clients under three policies, in real time."""
