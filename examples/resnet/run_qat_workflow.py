"""From a trained ResNet to verified INT8: the same pipeline and the same options as `keras-qat run`.

python run_qat_workflow.py                          # ResNet50 on the embedded digits
python run_qat_workflow.py --help                   # all options
"""

import cyclopts

from keras_qat.cli import main, run_command

if __name__ == "__main__":
    main(
        command=cyclopts.App(name="run_qat_workflow.py", default_command=run_command, suppress_keyboard_interrupt=False)
    )
