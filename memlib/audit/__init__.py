"""What does a model, or a set of images that it made, remember of its training images? How sure is that?

`audit` answers with a report. `sources` says what can be audited, `data` looks at the images before any model,
`copies` at what was generated, `members` at the model itself and `extraction` at what guidance brings out. `verdict`
puts the figures into one paragraph, `book` names the chapters that say what to do, and `report` writes all of it.
Whatever is slow is kept in shards: a run that was killed goes on where it was.
"""

from memlib.audit._audit import audit
from memlib.audit.report import Report
from memlib.audit.sources import Model

__all__ = ["Model", "Report", "audit"]
