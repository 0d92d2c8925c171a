"""What surrounds the lessons: papermill, the students' copy, the demonstration, the page of panels, a run beside a kernel."""
