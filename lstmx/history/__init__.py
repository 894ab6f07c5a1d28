"""What one pass of a cell over its inputs left behind: in memory, on disk, as named arrays."""

from lstmx.history.controls import Controls as Controls
from lstmx.history.controls import controlled as controlled
from lstmx.history.controls import holds as holds
from lstmx.history.controls import where_held as where_held
from lstmx.history.recorded import History as History
from lstmx.history.stored import StoredHistory as StoredHistory
