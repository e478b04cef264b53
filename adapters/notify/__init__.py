"""Messages out: e-mail over SMTP, SMS over a gateway's HTTP, and a webhook.

design/scheduling.md, section 8. Each is a channel of the registry; what is sent, to whom and when
is for those who use it. What goes out twice has the same key: ``Message-ID``, ``Idempotency-Key``.
"""

from adapters.notify.email import EMAIL
from adapters.notify.sms import SMS
from adapters.notify.webhook import WEBHOOK
from fhir_server.registry import Registry


def register(registry: Registry) -> None:
    """Add the channels; each opens where the settings name it."""
    for channel in (EMAIL, SMS, WEBHOOK):
        registry.channel(channel)
