"""What each verb of `astrid-operator` is told, one file each.

Owns names, defaults and help; imports nothing of the work, so that help and a wrong argument are answered at
once (an import contract holds that).
"""
