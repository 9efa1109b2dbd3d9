"""Signs one request a line, with botocore.

Reads {"method", "url", "hash", "id", "secret", "token", "region", "service", "date"} as JSON and
writes the value of Authorization, for exactly the headers that the operator signs. With "arrived"
the URL is one that came over the wire, and is read as the service reads it.
"""

import json
import sys
from urllib.parse import quote_from_bytes, unquote_to_bytes

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


class Fixed(SigV4Auth):
    """Signs at the time that the request names."""

    def sign(self, request, date):
        request.context["timestamp"] = date
        request.headers["X-Amz-Date"] = date
        if self.credentials.token:
            request.headers["X-Amz-Security-Token"] = self.credentials.token
        canonical = self.canonical_request(request)
        signature = self.signature(self.string_to_sign(request, canonical), request)
        self._inject_signature_to_request(request, signature)
        return request.headers["Authorization"]


def as_read(url):
    """Decodes the query once and encodes it once: botocore signs one as it stands."""
    path, _, query = url.partition("?")
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    encode = lambda part: quote_from_bytes(unquote_to_bytes(part), safe="-_.~")
    return path + "?" + "&".join(f"{encode(key)}={encode(value)}" for key, _, value in pairs)


for line in sys.stdin:
    wanted = json.loads(line)
    credentials = Credentials(wanted["id"], wanted["secret"], wanted["token"])
    url = as_read(wanted["url"]) if wanted.get("arrived") else wanted["url"]
    request = AWSRequest(method=wanted["method"], url=url)
    request.headers["X-Amz-Content-SHA256"] = wanted["hash"]
    signer = Fixed(credentials, wanted["service"], wanted["region"])
    print(signer.sign(request, wanted["date"]))
