"""TFLite for Coral boards: our own lowering of a QDQ graph to int8 TFLite."""
