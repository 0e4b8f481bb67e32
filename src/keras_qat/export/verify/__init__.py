"""Is a file's quantization the placement's? Its Q/DQ pairs are held to the plan, edge for edge."""

from keras_qat.export.verify.finding import FileVerification, Finding
from keras_qat.export.verify.verify import require_verified, verify_file

__all__ = ["FileVerification", "Finding", "require_verified", "verify_file"]
