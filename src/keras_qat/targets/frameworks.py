"""The engines without a target of their own: the frameworks that run Keras models and SavedModels."""

from keras_qat import machine
from keras_qat.targets.target import Engine

KERAS = Engine(
    name="keras",
    title="Keras",
    opens=".keras",
    suffixes=(".keras",),
    module="keras",
    packages=("keras",),
    install="keras",
    needs="backend",
)

TENSORFLOW = Engine(
    name="tensorflow",
    title="TensorFlow",
    opens="SavedModel",
    suffixes=(),
    module="tensorflow",
    packages=machine.TENSORFLOW,
    install="'keras-qat[cpu]'",
    runs_code=True,
)
