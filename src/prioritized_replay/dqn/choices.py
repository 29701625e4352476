"""What an agent's options may be, by name. Imports no torch: a configuration is read without it."""

from typing import Literal

Loss = Literal["huber", "squared"]
Precision = Literal["float32", "bfloat16"]
NetworkName = Literal["auto", "mlp", "nature", "light", "small"]
OptimizerName = Literal["adam", "rmsprop"]
