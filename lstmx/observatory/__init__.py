"""What a network does with its gradient while it is trained, look by look."""

from lstmx.observatory.alarms import Alarm as Alarm
from lstmx.observatory.observing import Observatory as Observatory
