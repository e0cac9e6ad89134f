"""What was asked for (`Recipe`) and everything decided from it (`Plan`): pure Python, no Pulumi, no network, no clock."""
