"""The tamper-evident audit: every act is one entry of an RFC 6962 tree."""
