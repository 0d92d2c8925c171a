"""nbgrader's settings for this course. Copy it to the folder of your course, as nbgrader_config.py.

docs/instructors.md says how to release, collect and grade with it. m2kd-lite has to be installed beside nbgrader.
"""
import os

from m2kd_lite.course import student

c = get_config()                                        # noqa: F821  nbgrader provides it

c.CourseDirectory.course_id = "m2kd-lite"               # yours; letters, digits, - and _
c.ClearSolutions.code_stub = {"python": student.STUB}    # the same as in the students' copy of `make student`

# Cells that train (they carry a tag) are not run when a submission is graded. Cells that need their results then fail,
# and cost nothing: only checks carry points, and no check needs them.
c.Execute.skip_cells_with_tag = student.NOT_GRADED
c.Execute.timeout = 120                                 # seconds for one cell, then it is interrupted and grading goes on

# nbgrader gives no points where a check's cell writes to stderr, and a warning of PyTorch's is written there.
os.environ["PYTHONWARNINGS"] = "ignore"
os.environ.setdefault("OMP_NUM_THREADS", "1")           # several graders beside each other do not get in each other's way
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
