"""Commands around `pulumi up`: what it would do and cost (`plan`), what may be written (`schema`), and a whole life cycle for nothing (`rehearse`)."""
